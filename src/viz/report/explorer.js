"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const svgNS = "http://www.w3.org/2000/svg";
  const state = { model: 0, puzzle: 0, segment: 1, timer: null };

  const pick = () => data.models[state.model];
  const puzzle = () => pick().puzzles[state.puzzle];
  const token = (c) => parseInt(c, 36);
  // Confidence is stored as two digits a cell, 00 to 99.
  const sure = (step, cell) => Number(step.confidence.slice(2 * cell, 2 * cell + 2)) / 99;

  function option(select, value, text) {
    const o = document.createElement("option");
    o.value = value;
    o.textContent = text;
    select.append(o);
  }

  function fillPuzzles() {
    $("puzzle").replaceChildren();
    pick().puzzles.forEach((p, k) => option($("puzzle"), k, p.name));
  }

  function face(p, t) {
    if (p.kind === "sudoku") return t >= 2 ? (t - 1).toString(36).toUpperCase() : "–";
    return t === 3 ? "S" : t === 4 ? "G" : t === 5 ? "●" : "";
  }

  // The same marks as the pictures: what is given, right, wrong.
  function mark(p, answer, cell) {
    const t = token(answer[cell]);
    const given = token(p.puzzle[cell]);
    const isGiven = p.kind === "sudoku" ? given > 1 : given !== 2 && t !== 5;
    if (p.solution && token(p.solution[cell]) !== t) return "wrong";
    if (!p.solution && isGiven && t !== given) return "wrong";
    if (isGiven && t === given) return "given";
    return p.solution ? "right" : "unknown";
  }

  let cells = [];
  function makeBoard() {
    const p = puzzle();
    const [height, width] = p.size;
    const board = $("board");
    board.className = p.kind;
    board.style.gridTemplateColumns = `repeat(${width}, 1fr)`;
    board.style.gridTemplateRows = `repeat(${height}, 1fr)`;
    cells = Array.from(p.puzzle, (_, cell) => {
      const div = document.createElement("div");
      div.dataset.cell = cell;
      const column = cell % width + 1, row = Math.floor(cell / width) + 1;
      const edge = (p.boxes && column % p.boxes[1] === 0 && column < width ? " edge-right" : "") +
        (p.boxes && row % p.boxes[0] === 0 && row < height ? " edge-below" : "");
      div.dataset.edge = edge;
      return div;
    });
    board.replaceChildren(...cells);
  }

  function drawBoard() {
    const p = puzzle();
    const step = p.steps[state.segment - 1];
    const before = state.segment > 1 ? p.steps[state.segment - 2].answer : null;
    const showSure = $("confidence").checked;
    let changed = 0, wrong = 0, right = 0;
    cells.forEach((div, cell) => {
      const t = token(step.answer[cell]);
      const kind = mark(p, step.answer, cell);
      const moved = before !== null && before[cell] !== step.answer[cell];
      changed += moved;
      wrong += kind === "wrong";
      right += p.solution ? token(p.solution[cell]) === t : 0;
      const wall = p.kind === "maze" && token(p.puzzle[cell]) === 1 && kind === "given";
      div.className = `cell ${wall ? "wall" : p.kind === "maze" && kind === "given" ? "" : kind}` +
        `${moved ? " changed" : ""}${div.dataset.edge}`;
      div.textContent = face(p, t);
      const percent = Math.round(100 * sure(step, cell));
      div.title = `${kind}${moved ? ", changed" : ""}, ${percent} % sure`;
      if (showSure && (kind !== "given" || p.kind === "sudoku" && token(p.puzzle[cell]) <= 1)) {
        const bar = document.createElement("span");
        bar.className = "sure";
        bar.style.width = `${Math.max(2, 0.84 * percent)}%`;
        div.append(bar);
      }
    });
    const total = p.puzzle.length;
    const parts = [];
    if (p.solution) parts.push(right === total ? "solved" : `${right} of ${total} cells right`);
    if (step.conflict !== null) parts.push(`${step.conflict} broken rules`);
    parts.push(before === null ? "first answer" : `${changed} cells changed`);
    if (step.loss !== null) parts.push(`loss ${step.loss.toFixed(4)}`);
    parts.push(`q halt ${step.q_halt.toFixed(2)}, continue ${step.q_continue.toFixed(2)}${step.q_halt > step.q_continue ? ": says halt" : ""}`);
    $("status").textContent = parts.join(" · ");
    $("board").setAttribute("aria-label", `Answer after segment ${state.segment}: ${parts.slice(0, 3).join(", ")}`);
    $("board").dataset.segment = state.segment;
  }

  function node(name, attributes, text) {
    const n = document.createElementNS(svgNS, name);
    for (const [key, value] of Object.entries(attributes)) n.setAttribute(key, value);
    if (text !== undefined) n.textContent = text;
    return n;
  }

  // matplotlib's viridis at five points, short of its lightest end.
  const viridis = [[68, 1, 84], [62, 74, 137], [38, 130, 142], [53, 183, 121], [160, 218, 57]];
  // Short of the darkest end too, which a dark page would hide.
  function shade(fraction) {
    const share = 0.22 + 0.78 * fraction;
    const x = Math.min(0.9999, Math.max(0, share)) * (viridis.length - 1);
    const k = Math.floor(x);
    const mix = (i) => Math.round(viridis[k][i] + (viridis[k + 1][i] - viridis[k][i]) * (x - k));
    return `rgb(${mix(0)},${mix(1)},${mix(2)})`;
  }

  function drawPath() {
    const p = puzzle();
    const svg = $("path");
    svg.replaceChildren();
    const [w, h, pad] = [560, 340, 34];
    const xs = p.points.map((q) => q[0]), ys = p.points.map((q) => q[1]);
    const span = Math.max(Math.max(...xs) - Math.min(...xs), (Math.max(...ys) - Math.min(...ys)) * (w - 2 * pad) / (h - 2 * pad), 1e-9);
    const unit = (w - 2 * pad) / span;
    const mid = [(Math.max(...xs) + Math.min(...xs)) / 2, (Math.max(...ys) + Math.min(...ys)) / 2];
    const at = (q) => [w / 2 + (q[0] - mid[0]) * unit, h / 2 - (q[1] - mid[1]) * unit];
    const places = p.points.map(at);
    const now = state.segment * p.h_cycles - 1;
    for (let i = 1; i < places.length; i++) {
      const done = i <= now;
      svg.append(node("line", {
        x1: places[i - 1][0], y1: places[i - 1][1], x2: places[i][0], y2: places[i][1],
        stroke: done ? shade(i / (places.length - 1)) : "var(--line)", "stroke-width": done ? 2.6 : 1.4,
      }));
    }
    places.forEach((q, i) => {
      const end = (i + 1) % p.h_cycles === 0;
      svg.append(node("circle", {
        cx: q[0], cy: q[1], r: end ? 4 : 2.4, stroke: "var(--paper)", "stroke-width": 0.8,
        fill: i <= now ? shade(i / (places.length - 1)) : "var(--line)",
      }));
    });
    const here = places[now];
    svg.append(node("circle", { id: "here", cx: here[0], cy: here[1], r: 10, fill: "none", stroke: "var(--focus)", "stroke-width": 3.5 }));
    const first = places[0];
    svg.append(node("rect", { x: first[0] - 6, y: first[1] - 6, width: 12, height: 12, fill: "none", stroke: "var(--ink)", "stroke-width": 2 }));
    svg.append(node("text", { x: w / 2, y: h - 8, "text-anchor": "middle", class: "axis" }, `PC1 (${(100 * p.variance[0]).toFixed(1)} % of the variance)`));
    const up = node("text", { transform: `translate(16 ${h / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis" }, `PC2 (${(100 * p.variance[1]).toFixed(1)} %)`);
    svg.append(up);
    svg.setAttribute("aria-label", `Path of the hidden state in two principal components; now at segment ${state.segment} of ${p.steps.length}`);
  }

  function drawLosses() {
    const p = puzzle();
    const svg = $("losses");
    svg.replaceChildren();
    const [w, h, left, right, top, bottom] = [560, 230, 60, 64, 16, 38];
    const n = p.steps.length;
    const x = (k) => left + (w - left - right) * (n > 1 ? (k - 1) / (n - 1) : 0.5);
    const losses = p.steps.map((s) => s.loss).filter((l) => l !== null);
    const cellsRight = p.solution ? p.steps.map((s) => [...s.answer].filter((c, i) => c === p.solution[i]).length / p.puzzle.length) : null;
    if (losses.length) {
      const low = Math.floor(Math.log10(Math.max(Math.min(...losses), 1e-9)));
      const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...losses, 1e-9))));
      const y = (l) => top + (h - top - bottom) * (1 - (Math.log10(Math.max(l, 1e-9)) - low) / (high - low));
      for (let d = low; d <= high; d++) {
        svg.append(node("line", { x1: left, x2: w - right, y1: y(10 ** d), y2: y(10 ** d), stroke: "var(--line)" }));
        svg.append(node("text", { x: left - 8, y: y(10 ** d) + 4, "text-anchor": "end", class: "axis" }, d >= -3 && d <= 3 ? String(10 ** d) : `1e${d}`));
      }
      svg.append(node("polyline", { points: p.steps.map((s, k) => `${x(k + 1)},${y(s.loss)}`).join(" "), fill: "none", stroke: "var(--right)", "stroke-width": 2.6 }));
      svg.append(node("circle", { cx: x(state.segment), cy: y(p.steps[state.segment - 1].loss), r: 6, fill: "var(--right)" }));
    }
    if (cellsRight) {
      const y = (share) => top + (h - top - bottom) * (1 - share);
      svg.append(node("polyline", { points: cellsRight.map((s, k) => `${x(k + 1)},${y(s)}`).join(" "), fill: "none", stroke: "var(--wrong)", "stroke-width": 2.2, "stroke-dasharray": "7 4" }));
      svg.append(node("circle", { cx: x(state.segment), cy: y(cellsRight[state.segment - 1]), r: 5, fill: "var(--wrong)" }));
      [0, 0.5, 1].forEach((s) => svg.append(node("text", { x: w - right + 8, y: y(s) + 4, class: "axis" }, `${100 * s} %`)));
    }
    svg.append(node("line", { id: "cursor", x1: x(state.segment), x2: x(state.segment), y1: top, y2: h - bottom, stroke: "var(--focus)", "stroke-width": 2 }));
    const every = Math.ceil(n / 16);
    for (let k = 1; k <= n; k++) if (k === 1 || k % every === 0) svg.append(node("text", { x: x(k), y: h - bottom + 16, "text-anchor": "middle", class: "axis" }, String(k)));
    svg.append(node("text", { x: (left + w - right) / 2, y: h - 5, "text-anchor": "middle", class: "axis" }, "segment"));
    svg.setAttribute("aria-label", `Loss and right cells by segment; now at segment ${state.segment} of ${n}`);
  }

  function draw() {
    const n = puzzle().steps.length;
    state.segment = Math.min(n, Math.max(1, state.segment));
    $("segment").max = n;
    $("segment").value = state.segment;
    $("segment").setAttribute("aria-valuetext", `segment ${state.segment} of ${n}`);
    $("where").textContent = `segment ${state.segment} of ${n}`;
    $("puzzle").value = state.puzzle;
    drawBoard();
    drawPath();
    drawLosses();
  }

  function show(p) {
    const count = pick().puzzles.length;
    state.puzzle = (p + count) % count;
    makeBoard();
    draw();
  }
  function step(to) {
    state.segment = to;
    draw();
  }
  function play(on) {
    clearInterval(state.timer);
    state.timer = on ? setInterval(() => (state.segment < puzzle().steps.length ? step(state.segment + 1) : play(false)), 500) : null;
    $("play").textContent = on ? "Pause" : "Play";
    $("play").setAttribute("aria-pressed", String(on));
  }
  function togglePlay() {
    if (state.timer === null && state.segment === puzzle().steps.length) step(1);
    play(state.timer === null);
  }

  data.models.forEach((m, k) => option($("model"), k, m.name));
  if (data.models.length < 2) $("model").closest("label").hidden = true;
  $("model").addEventListener("change", () => { state.model = Number($("model").value); fillPuzzles(); show(Math.min(state.puzzle, pick().puzzles.length - 1)); });
  $("puzzle").addEventListener("change", () => show(Number($("puzzle").value)));
  $("segment").addEventListener("input", () => step(Number($("segment").value)));
  $("confidence").addEventListener("change", draw);
  $("back").addEventListener("click", () => step(state.segment - 1));
  $("next").addEventListener("click", () => step(state.segment + 1));
  $("play").addEventListener("click", togglePlay);
  $("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--paper").trim() !== "#ffffff";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("select")) return;
    const onSlider = event.target.id === "segment";
    const keys = {
      ArrowLeft: () => step(state.segment - 1), ArrowRight: () => step(state.segment + 1),
      Home: () => step(1), End: () => step(puzzle().steps.length),
      n: () => show(state.puzzle + 1), p: () => show(state.puzzle - 1),
      c: () => { $("confidence").checked = !$("confidence").checked; draw(); },
    };
    if (event.key === " " && !event.target.closest("button, input")) {
      togglePlay();
    } else if (keys[event.key] && !(onSlider && /Arrow|Home|End/.test(event.key))) {
      keys[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  });

  fillPuzzles();
  show(0);
})();
