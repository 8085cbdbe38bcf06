// One divider a pair of images, moved by mouse, touch or keyboard.

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

all(".gallery").forEach(startGallery);
