// Pointing at a mark, or moving through them with the arrow keys, names the candidate.

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

all(".plot").forEach(startPlot);
