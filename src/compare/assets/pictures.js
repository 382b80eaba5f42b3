// The same picture of all runs side by side, and a viewer that enlarges one.

let gallery = [];
let enlarged = 0;

const pictureNames = () => [...new Set(data.runs.flatMap((run) => Object.keys(run.pictures)))].sort();

/** The epochs in which any run made the chosen picture. */
function epochsOf(name) {
  const all = data.runs.flatMap((run) => (run.pictures[name] ?? []).map(([epoch]) => epoch));
  return [...new Set(all.filter((epoch) => epoch !== null))].sort((a, b) => a - b);
}

/** The run's frame at an epoch: its latest one up to that epoch, otherwise its first. */
function frameAt(frames, epoch) {
  return frames.filter(([at]) => at === null || at <= epoch).at(-1) ?? frames[0];
}

function framesShown() {
  const name = byId("picture").value;
  const epoch = epochsOf(name)[Number(byId("epoch").value)];
  return shown().map((run) => {
    const frames = run.pictures[name];
    if (!frames) return { run, name };
    const [at, source] = frameAt(frames, epoch);
    const late = at !== null && at !== epoch;
    return { run, name, source, text: at === null ? run.name : `${run.name}, epoch ${at}`, tag: late ? `epoch ${at}` : null };
  });
}

function figure({ run, name, source, text, tag }, open) {
  const caption = el("figcaption", {}, run ? mark(run) : null, el("span", {}, run ? run.name : name), tag ? el("span", { class: "tag" }, tag) : null);
  const content = source
    ? el("button", { type: "button", "aria-label": `enlarge ${name}, ${text}`, onclick: open }, el("img", { src: source, alt: `${name}, ${text}`, decoding: "sync" }))
    : el("div", { class: "empty" }, "no such picture");
  return el("figure", {}, caption, content);
}

function drawPictures() {
  const name = byId("picture").value;
  const epochs = epochsOf(name);
  byId("epoch-label").hidden = epochs.length < 2;
  byId("epoch").max = Math.max(0, epochs.length - 1);
  const epoch = epochs[Number(byId("epoch").value)];
  byId("epoch-value").textContent = epoch ?? "";
  byId("epoch").setAttribute("aria-valuetext", `epoch ${epoch}`);
  const frames = framesShown();
  const open = frames.filter((frame) => frame.source);
  byId("gallery").replaceChildren(...frames.map((frame) => figure(frame, () => enlarge(open, open.indexOf(frame)))));
  const thinned = data.runs.some((run) => (run.pictures[name]?.length ?? 0) < (run.seriesLengths[name] ?? 0));
  byId("pictures-note").textContent = [
    "Click a picture to enlarge it; the arrow keys then switch between runs.",
    thinned ? `This page holds at most ${data.maxEpochs} evenly spaced epochs per run.` : "",
    data.images === "test" ? "This page was written with images=test and has no pictures of epochs." : "",
  ].filter(Boolean).join(" ");
}

function enlarge(frames, index) {
  gallery = frames;
  showEnlarged(index);
  byId("viewer").showModal();
}

function showEnlarged(index) {
  enlarged = (index + gallery.length) % gallery.length;
  const { name, source, text } = gallery[enlarged];
  byId("viewer-image").src = source;
  byId("viewer-image").alt = `${name}, ${text}`;
  byId("viewer-caption").textContent = name === text ? name : `${name}: ${text}`;
  ["viewer-back", "viewer-forward"].forEach((id) => { byId(id).hidden = gallery.length < 2; });
}

function startViewer() {
  byId("viewer-back").addEventListener("click", () => showEnlarged(enlarged - 1));
  byId("viewer-forward").addEventListener("click", () => showEnlarged(enlarged + 1));
  byId("viewer-close").addEventListener("click", () => byId("viewer").close());
  byId("viewer").addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (direction) showEnlarged(enlarged + direction);
  });
}

function startPictures() {
  startViewer();
  const names = pictureNames();
  byId("pictures").hidden = !names.length;
  byId("figures").hidden = !data.figures.length;
  const figures = data.figures.map(([name, source]) => ({ name, source, text: name }));
  byId("figures-gallery").append(...figures.map((frame, i) => figure(frame, () => enlarge(figures, i))));
  if (!names.length) return;
  byId("picture").append(...names.map((name) => option(name)));
  byId("picture").value = names.find((name) => name.startsWith("test")) ?? names[0];
  const last = () => { byId("epoch").max = byId("epoch").value = Math.max(0, epochsOf(byId("picture").value).length - 1); };
  byId("picture").addEventListener("change", () => { last(); drawPictures(); });
  byId("epoch").addEventListener("input", drawPictures);
  byId("picture-width").addEventListener("input", () => byId("gallery").style.setProperty("--picture-width", `${byId("picture-width").value}px`));
  last();
  onChange(drawPictures);
}
