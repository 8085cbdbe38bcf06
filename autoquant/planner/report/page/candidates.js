// What each candidate drew. The plan's images stand in the page, the others wait in templates.

const PLANNED = "planned";

function readShot(root, name) {
  const shot = (kind) => root.querySelector(`.${kind} img`);
  return {
    name,
    planned: shot("planned").getAttribute("src"),
    difference: shot("difference").getAttribute("src"),
    caption: root.querySelector(".meta").textContent,
  };
}

/** For each pair of the page, what every candidate drew of it, by the candidate's key. */
const drawn = new Map(
  all(".pair").map((pair) => {
    const shots = new Map([
      [PLANNED, { ...readShot(pair, "as planned"), askable: "askable" in pair.dataset }],
    ]);
    all("template[data-candidate]", pair).forEach((template) => {
      const { candidate, name } = template.dataset;
      const askable = "askable" in template.dataset;
      shots.set(candidate, { ...readShot(template.content, name), askable });
    });
    return [pair, shots];
  }),
);
