// One divider a pair of images, moved by mouse, touch or keyboard; and which candidate is shown.

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

function showCandidate(key) {
  drawn.forEach((shots, pair) => {
    const shot = shots.get(key);
    // A candidate that was stopped early has not drawn every sample.
    pair.hidden = shot === undefined;
    if (pair.hidden) return;
    const prompt = pair.querySelector(".prompt").textContent;
    const planned = pair.querySelector(".planned img");
    planned.src = shot.planned;
    planned.alt = `${key === PLANNED ? "As planned" : shot.name}: ${prompt}`;
    pair.querySelector(".difference img").src = shot.difference;
    pair.querySelector(".planned .tag").textContent = shot.name;
    pair.querySelector(".meta").textContent = shot.caption;
  });
}

/** Every candidate's image of one pair, small and beside each other. */
function fillStrip(pair) {
  const strip = pair.querySelector(".strip");
  if (strip.childElementCount > 0) return;
  const reference = pair.querySelector(".reference img").getAttribute("src");
  strip.append(stripShot(pair, reference, "unquantized", ""));
  drawn.get(pair).forEach((shot) => {
    strip.append(stripShot(pair, shot.planned, shot.name, shot.caption));
  });
}

function stripShot(pair, source, name, caption) {
  const figure = document.createElement("figure");
  const image = document.createElement("img");
  const text = document.createElement("figcaption");
  const meta = document.createElement("span");
  image.src = source;
  image.alt = `${name}: ${pair.querySelector(".prompt").textContent}`;
  meta.className = "meta";
  meta.textContent = caption;
  text.append(name, meta);
  figure.append(image, text);
  return figure;
}

function startGallery(gallery) {
  const viewSwitch = document.querySelector("[data-view-switch]");
  const pick = document.querySelector("[data-candidate-pick]");
  viewSwitch.hidden = false;
  gallery.dataset.view = "slider";
  viewSwitch.addEventListener("change", (event) => {
    gallery.dataset.view = event.target.value;
    if (event.target.value === "every") all(".pair", gallery).forEach(fillStrip);
  });
  if (pick) {
    pick.hidden = false;
    // A browser may keep the choice over a reload; the page starts with the plan.
    pick.querySelector("select").value = PLANNED;
    pick.addEventListener("change", (event) => showCandidate(event.target.value));
  }
  all(".compare", gallery).forEach(startSlider);
}

all(".gallery").forEach(startGallery);
