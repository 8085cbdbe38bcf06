"use strict";

// Everything is read from the page and written back as text, so nothing in a plan can become code.

const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

/* Plots: pointing at a mark, or moving through them with the arrow keys, names the candidate. */

const NEAR_PX = 32;

function startPlot(figure) {
  const svg = figure.querySelector("svg");
  const tip = figure.querySelector(".tip");
  const marks = all(".mark", svg).sort((a, b) => a.dataset.x - b.dataset.x);
  all("title", svg).forEach((title) => title.remove());

  function show(mark) {
    hide();
    all(`[data-point="${CSS.escape(mark.dataset.point)}"]`).forEach((twin) => twin.classList.add("lit"));
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const frame = figure.getBoundingClientRect();
    const at = mark.querySelector("circle").getBoundingClientRect();
    const left = at.left + at.width / 2 - frame.left - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(0, Math.min(left, frame.width - tip.offsetWidth))}px`;
    const above = at.top - frame.top - tip.offsetHeight - 10;
    tip.style.top = `${above > 0 ? above : at.bottom - frame.top + 10}px`;
  }

  function hide() {
    tip.hidden = true;
    all(".lit").forEach((lit) => lit.classList.remove("lit"));
  }

  function nearest(event) {
    const distance = (mark) => {
      const box = mark.querySelector("circle").getBoundingClientRect();
      return Math.hypot(
        event.clientX - box.left - box.width / 2,
        event.clientY - box.top - box.height / 2,
      );
    };
    const closest = marks.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    return distance(closest) <= NEAR_PX ? closest : null;
  }

  function follow(event) {
    const mark = nearest(event);
    if (mark) show(mark);
    else hide();
  }

  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") hide();
  });

  // One stop for the Tab key; the arrow keys move among the marks.
  const first = marks.find((mark) => mark.querySelector(".mark-chosen"));
  marks.forEach((mark, index) => {
    mark.setAttribute("tabindex", mark === first ? "0" : "-1");
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("blur", hide);
    mark.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      const next = marks[(index + step + marks.length) % marks.length];
      marks.forEach((other) => other.setAttribute("tabindex", other === next ? "0" : "-1"));
      next.focus();
    });
  });
}

/* Images: one divider a pair, moved by mouse, touch or keyboard. */

function startSlider(compare) {
  const range = compare.querySelector("input");
  const apply = () => compare.style.setProperty("--split", `${range.value}%`);

  function drag(event) {
    const box = compare.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    range.value = Math.round(100 * Math.max(0, Math.min(1, share)));
    apply();
  }

  range.addEventListener("input", apply);
  compare.addEventListener("pointerdown", (event) => {
    if (document.querySelector(".gallery").dataset.view !== "slider" || event.button !== 0) return;
    event.preventDefault();
    compare.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true });
    drag(event);
  });
  compare.addEventListener("pointermove", (event) => {
    if (compare.hasPointerCapture(event.pointerId)) drag(event);
  });
  apply();
}

function startGallery(gallery) {
  const viewSwitch = document.querySelector("[data-view-switch]");
  viewSwitch.hidden = false;
  gallery.dataset.view = "slider";
  viewSwitch.addEventListener("change", (event) => {
    gallery.dataset.view = event.target.value;
  });
  all(".compare", gallery).forEach(startSlider);
}

/* Blind test. */

const SURE_BELOW = 0.05;
const SEEN_BEFORE =
  "You had seen the answers, though, so this time counts for little; only the first one is fair.";

/** Chance that somebody who only guesses gets at least `right` of `n` rounds right. */
function chanceOfGuessing(right, n) {
  let ways = 1;
  let sum = 0;
  for (let k = 0; k <= n; k += 1) {
    if (k >= right) sum += ways * 0.5 ** n;
    ways = (ways * (n - k)) / (k + 1);
  }
  return Math.min(1, sum);
}

/** The least number of right answers that guessing hardly reaches, or null if all are too few. */
function rightNeeded(n) {
  for (let right = 0; right <= n; right += 1) {
    if (chanceOfGuessing(right, n) <= SURE_BELOW) return right;
  }
  return null;
}

function inWords(chance) {
  if (chance > 0.995) return "practically always";
  if (chance >= 0.1) return `in about ${Math.round(100 * chance)} of 100 tries`;
  return `in about 1 of ${Math.round(1 / chance).toLocaleString("en")} tries`;
}

function shuffled(items) {
  const mixed = items.slice();
  for (let last = mixed.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
  }
  return mixed;
}

function random() {
  return crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32;
}

function verdict(right, n) {
  const chance = chanceOfGuessing(right, n);
  const guessing = `Somebody who only guesses gets ${right} or more of ${n} right ${inWords(chance)}.`;
  const exact = `Exact one-sided binomial test against 50%: p = ${chance.toPrecision(2)}.`;
  if (chance <= SURE_BELOW) {
    return [
      "You can very likely tell them apart.",
      `${guessing} ${exact} Whether the difference bothers you is for you to say.`,
    ];
  }
  const needed = rightNeeded(n);
  if (needed === null) {
    return [
      "Too few rounds to know.",
      `${guessing} ${exact} Even all right would not be proof with ${n} rounds; measure with more prompts.`,
    ];
  }
  return [
    "Not enough to say that you can tell them apart.",
    `${guessing} ${exact} From ${needed} right answers on, luck would be a poor explanation. It is no proof that the images look the same either: more rounds would find a smaller difference.`,
  ];
}

function startBlindTest(root) {
  const part = (name) => root.querySelector(`[data-${name}]`);
  const pairs = all(".pair[data-askable]").map((pair) => ({
    prompt: pair.querySelector(".prompt").textContent,
    small: pair.classList.contains("small"),
    reference: pair.querySelector(".reference img").src,
    planned: pair.querySelector(".planned img").src,
  }));
  let rounds = [];
  let asked = 0;
  let finished = 0;

  function step(name) {
    all("[data-step]", root).forEach((element) => {
      element.hidden = element.dataset.step !== name;
    });
  }

  function begin() {
    rounds = shuffled(pairs).map((pair) => ({ pair, quantized: random() < 0.5 ? 0 : 1 }));
    asked = 0;
    step("ask");
    ask();
  }

  function ask() {
    const { pair, quantized } = rounds[asked];
    part("progress").textContent = `Round ${asked + 1} of ${rounds.length}`;
    part("prompt").textContent = pair.prompt;
    all("[data-shown]", root).forEach((image, place) => {
      image.src = place === quantized ? pair.planned : pair.reference;
      image.classList.toggle("small", pair.small);
    });
  }

  function answer(place) {
    rounds[asked].right = place === rounds[asked].quantized;
    asked += 1;
    if (asked < rounds.length) ask();
    else finish();
  }

  function finish() {
    const right = rounds.filter((round) => round.right).length;
    const [judgement, explanation] = verdict(right, rounds.length);
    part("score").textContent = `${right} of ${rounds.length} right`;
    part("verdict").textContent = judgement;
    part("explanation").textContent = finished ? `${explanation} ${SEEN_BEFORE}` : explanation;
    finished += 1;
    part("answers").replaceChildren(...rounds.map(answerLine));
    step("result");
    root.querySelector('[data-step="result"]').focus();
  }

  function answerLine(round) {
    const line = document.createElement("li");
    line.className = round.right ? "right" : "wrong";
    line.textContent = `${round.right ? "right" : "wrong"}: the ${["first", "second"][round.quantized]} was quantized · ${round.pair.prompt}`;
    return line;
  }

  const needed = rightNeeded(pairs.length);
  part("needed").textContent =
    needed === null
      ? "So few rounds cannot prove anything, even if all answers are right."
      : `With ${pairs.length} rounds, ${needed} right answers are hard to get by luck (${inWords(chanceOfGuessing(needed, pairs.length))}).`;
  part("begin").addEventListener("click", begin);
  part("again").addEventListener("click", begin);
  all("[data-answer]", root).forEach((button) => {
    button.addEventListener("click", (event) => {
      // The second click of a double click would answer a round that was not looked at.
      if (event.detail <= 1) answer(Number(button.dataset.answer));
    });
  });
  root.dataset.ready = "";
}

all(".plot").forEach(startPlot);
all(".gallery").forEach(startGallery);
all("[data-blind]").forEach(startBlindTest);
