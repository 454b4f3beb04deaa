// Plays the trajectories of a page: one viewer, a choice of replicas, play and pause, a slider, the marked pair.
(() => {
  "use strict";
  const replays = JSON.parse(document.getElementById("replay-data").textContent);
  const at = (name) => document.getElementById("replay-" + name);
  const [choice, note, stage, state, play, slider, legend] =
    ["choice", "note", "stage", "state", "play", "frame", "legend"].map(at);
  const INTERVAL_MS = 150, MARK = "#e6009e", MANY_ATOMS = 100, NEAR_A = 4.5;
  const point = ([x, y, z]) => ({ x, y, z });
  let viewer = null, model = null, replay = null, timer = null, drawing = Promise.resolve();

  try {
    viewer = $3Dmol.createViewer(stage, { backgroundAlpha: 0, antialias: true, disableFog: true });
  } catch (error) {
    viewer = null;
  }
  if (!viewer) {
    stage.textContent = "The 3D view needs WebGL, which this browser does not offer.";
  } else {
    // the wheel scrolls the page; with Ctrl or Cmd it zooms
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
    }, { capture: true });
    new ResizeObserver(() => { viewer.resize(); viewer.render(); }).observe(stage);
  }

  function load(index) {
    pause();
    replay = replays[index];
    note.textContent = replay.note;
    slider.max = replay.frames.length - 1;
    legend.replaceChildren(...Object.entries(replay.colors).map(([symbol, color]) => {
      const item = document.createElement("li"), dot = document.createElement("span");
      dot.style.background = color;
      item.append(dot, symbol);
      return item;
    }));
    if (viewer) draw();
    show(replay.frames.length - 1);
    if (viewer) { viewer.zoomTo(); viewer.zoom(1.1); viewer.render(); }
  }

  function draw() {
    viewer.removeAllModels();
    const atoms = replay.symbols.map((elem, serial) => {
      const [x, y, z] = replay.frames[0][serial];
      return { elem, serial, x, y, z, bonds: [], bondOrder: [] };
    });
    for (const [i, j] of replay.bonds) {
      for (const [one, other] of [[i, j], [j, i]]) {
        atoms[one].bonds.push(other);
        atoms[one].bondOrder.push(1);
      }
    }
    model = viewer.addModel();
    model.addAtoms(atoms);
    model.setCoordinates(replay.frames, "array");
    style({ prop: "elem", map: replay.colors });
  }

  // in a liquid, only the surroundings of the marked pair are drawn in full
  function style(scheme) {
    const full = { stick: { radius: 0.12, colorscheme: scheme }, sphere: { scale: 0.24, colorscheme: scheme } };
    const last = replay.frames[replay.frames.length - 1];
    if (!replay.marked || last.length < MANY_ATOMS) return model.setStyle({}, full);
    const near = (place) => replay.marked.some((atom) => Math.hypot(...place.map((x, k) => x - last[atom][k])) < NEAR_A);
    model.setStyle({}, { stick: { radius: 0.05, colorscheme: scheme } });
    return model.setStyle({ serial: last.flatMap((place, serial) => (near(place) ? [serial] : [])) }, full);
  }

  function mark(frame) {
    viewer.removeAllShapes();
    for (const [start, end] of replay.edges) viewer.addLine({ start: point(start), end: point(end), color: "#7a8694" });
    if (!replay.marked) return;
    const [start, end] = replay.marked.map((atom) => point(replay.frames[frame][atom]));
    viewer.addCylinder({ start, end, radius: 0.22, color: MARK, fromCap: 1, toCap: 1 });
    for (const center of [start, end]) viewer.addSphere({ center, radius: 0.55, color: MARK, alpha: 0.5 });
  }

  function distance(frame) {
    const [a, b] = replay.marked.map((atom) => replay.frames[frame][atom]);
    return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
  }

  function show(frame) {
    slider.value = frame;
    const parts = ["frame " + (frame + 1) + " of " + replay.frames.length, replay.times_ps[frame].toFixed(3) + " ps"];
    if (replay.marked) parts.push(replay.marked_name + ": " + distance(frame).toFixed(2) + " Å");
    state.textContent = parts.join(", ");
    slider.setAttribute("aria-valuetext", state.textContent);
    if (viewer) {
      drawing = drawing.then(() => viewer.setFrame(frame)).then(() => { mark(frame); viewer.render(); });
    }
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  function start() {
    if (Number(slider.value) >= replay.frames.length - 1) show(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      if (next < replay.frames.length) show(next);
      if (next >= replay.frames.length - 1) pause();
    }, INTERVAL_MS);
  }

  play.addEventListener("click", () => (timer === null ? start() : pause()));
  slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
  choice.addEventListener("change", () => load(Number(choice.value)));
  for (const [side, angle] of [["left", -30], ["right", 30]]) {
    at(side).addEventListener("click", () => { if (viewer) { viewer.rotate(angle, "y"); viewer.render(); } });
  }
  addEventListener("beforeprint", () => document.querySelectorAll("main details").forEach((each) => { each.open = true; }));
  load(0);
})();
