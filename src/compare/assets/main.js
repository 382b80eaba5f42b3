// Fill the parts that never change, then draw everything once.

function startNotes() {
  byId("notes").hidden = !data.notes.length;
  byId("notes-list").append(...data.notes.map((note) => el("li", {}, note)));
}

function startHeader() {
  const pictures = [...data.runs.flatMap((run) => Object.values(run.pictures).flat().map(([, source]) => source)), ...data.figures.map(([, source]) => source)];
  const megabytes = (pictures.reduce((sum, source) => sum + source.length, 0) / 1e6).toFixed(1);
  const unfinished = data.runs.filter((run) => !run.finished).length;
  byId("facts").textContent = [
    `written ${data.written}`,
    unfinished ? `${unfinished} unfinished` : "",
    pictures.length ? `${pictures.length} pictures (${megabytes} MB)` : "no pictures",
  ].filter(Boolean).join(" · ");
  const sections = [...document.querySelectorAll("main > section:not([hidden])")];
  byId("contents").append(...sections.map((section) => el("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)));
}

startDifferences();
startCurves();
startPictures();
startTradeoff();
startNotes();
startHeader();
startRuns();
