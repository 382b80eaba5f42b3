// The keys in which the configurations of the runs shown differ.

function drawDifferences() {
  const runs = shown();
  const rows = data.differences
    .map(({ key, values }) => ({ key, values: runs.map((run) => values[run.index]) }))
    .filter(({ key, values }) => new Set(/^(hardware|versions)\./.test(key) ? values.filter((value) => value !== null) : values).size > 1);
  const everywhere = ({ values }) => values.every((value) => value !== null);
  const shared = rows.filter(everywhere);
  const used = byId("shared-keys").checked ? shared : [...shared, ...rows.filter((row) => !everywhere(row))];
  const head = el("tr", {}, el("th", { scope: "col" }, "key"), ...runs.map((run) => el("th", { scope: "col" },
    el("span", { class: "run" }, mark(run), el("span", { class: "name" }, run.name)))));
  const body = used.map(({ key, values }) => el("tr", {}, el("th", { scope: "row" }, key),
    ...values.map((value) => el("td", { class: value === null ? "missing" : null }, value === null ? "–" : value))));
  byId("differences-table").replaceChildren(el("thead", {}, head), el("tbody", {}, ...body));
  const without = rows.length - shared.length;
  byId("differences-note").textContent = rows.length
    ? `${rows.length} ${rows.length === 1 ? "key differs" : "keys differ"}${without ? `; ${without} missing from some runs (–)` : ""}. Hardware and versions are compared too.`
    : "These runs have the same configuration, hardware and versions.";
}

function startDifferences() {
  if (data.runs.length < 2) {
    byId("differences").hidden = true;
    return;
  }
  byId("shared-keys").addEventListener("change", drawDifferences);
  onChange(drawDifferences);
}
