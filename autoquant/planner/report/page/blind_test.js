// Which of two images is the quantized one, asked in random order and scored against chance.

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

function foretold(n) {
  if (n === 0) return "";
  const needed = rightNeeded(n);
  if (needed === null) return `So few rounds (${n}) cannot prove anything, even if all answers are right.`;
  return `With ${n} rounds, ${needed} right answers are hard to get by luck (${inWords(chanceOfGuessing(needed, n))}).`;
}

function leftOut(identical) {
  if (identical === 0) return "";
  const pairs = identical === 1 ? "1 pair is" : `${identical} pairs are`;
  return `${pairs} identical pixel for pixel and not asked.`;
}

function startBlindTest(root) {
  const part = (name) => root.querySelector(`[data-${name}]`);
  const pick = root.querySelector("select");
  let pairs = [];
  let rounds = [];
  let asked = 0;
  const finished = new Set();

  /** The pairs of the picked candidate that are not identical pixel for pixel. */
  function choosePairs() {
    const key = pick ? pick.value : PLANNED;
    const picked = Array.from(drawn).filter(([, shots]) => shots.has(key));
    pairs = picked.map(([pair, shots]) => ({
      key,
      prompt: pair.querySelector(".prompt").textContent,
      small: pair.classList.contains("small"),
      reference: pair.querySelector(".reference img").getAttribute("src"),
      planned: shots.get(key).planned,
      askable: shots.get(key).askable,
    })).filter((pair) => pair.askable);
    const identical = picked.length - pairs.length;
    part("needed").textContent = [foretold(pairs.length), leftOut(identical)].join(" ").trim();
    part("begin").disabled = pairs.length === 0;
  }

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
    part("explanation").textContent = finished.has(pairs[0].key)
      ? `${explanation} ${SEEN_BEFORE}`
      : explanation;
    finished.add(pairs[0].key);
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

  if (pick) {
    pick.value = PLANNED;
    pick.addEventListener("change", choosePairs);
  }
  choosePairs();
  part("begin").addEventListener("click", begin);
  part("again").addEventListener("click", () => (pick ? step("start") : begin()));
  all("[data-answer]", root).forEach((button) => {
    button.addEventListener("click", (event) => {
      // The second click of a double click would answer a round that was not looked at.
      if (event.detail <= 1) answer(Number(button.dataset.answer));
    });
  });
  root.dataset.ready = "";
}

all("[data-blind]").forEach(startBlindTest);
