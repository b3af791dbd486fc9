"use strict";
const short = (value) => Number(value.toPrecision(4)).toString();

for (const plot of document.querySelectorAll(".plot")) {
  const svg = plot.querySelector("svg"), tip = plot.querySelector(".tip");
  const lines = JSON.parse(plot.querySelector("script").textContent);
  const guide = document.createElementNS("http://www.w3.org/2000/svg", "line");
  guide.setAttribute("class", "guide");
  svg.append(guide);
  const xs = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  let at = -1;
  const hide = () => { tip.hidden = true; guide.setAttribute("visibility", "hidden"); };
  const nearest = (x) => xs.reduce((best, value, index) => Math.abs(value - x) < Math.abs(xs[best] - x) ? index : best, 0);
  const show = (index) => {
    if (xs.length === 0) return;
    at = Math.max(0, Math.min(xs.length - 1, index));
    const [, , width, height] = svg.viewBox.baseVal ? [0, 0, svg.viewBox.baseVal.width, svg.viewBox.baseVal.height] : [0, 0, 1, 1];
    const hits = lines.map((line) => [line, line.points.find((point) => point[0] === xs[at])]).filter(([, point]) => point);
    tip.replaceChildren();
    const head = document.createElement("div");
    head.textContent = short(hits[0][1][2]);
    tip.append(head);
    for (const [line, point] of hits) {
      const row = document.createElement("div");
      row.className = `key c${line.colour}`;
      row.textContent = `${line.name} ${short(point[3])}`;
      tip.append(row, document.createElement("br"));
    }
    tip.hidden = false;
    for (const [name, value] of [["x1", xs[at]], ["x2", xs[at]], ["y1", 10], ["y2", height - 64], ["visibility", "visible"]]) guide.setAttribute(name, value);
    const left = xs[at] / width * plot.clientWidth;
    tip.style.left = `${Math.max(0, left + 10 + tip.offsetWidth > plot.clientWidth ? left - 10 - tip.offsetWidth : left + 10)}px`;
  };
  const follow = (event) => {
    const box = svg.getBoundingClientRect();
    show(nearest((event.clientX - box.left) / box.width * svg.viewBox.baseVal.width));
  };
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { show(at + step); event.preventDefault(); }
  });
  hide();
}

for (const figure of document.querySelectorAll(".matrix")) {
  const canvas = figure.querySelector("canvas"), readout = figure.querySelector(".readout");
  const { classes, cells } = JSON.parse(figure.querySelector("script").textContent);
  const n = classes.length, totals = new Array(n).fill(0), counts = new Map();
  for (const [row, column, count] of cells) { totals[row] += count; counts.set(row * n + column, count); }
  let view = { x: 0, y: 0, size: n }, chosen = null;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const draw = () => {
    const ratio = window.devicePixelRatio || 1, side = Math.round(canvas.clientWidth * ratio);
    if (side === 0) return;
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d"), cell = side / view.size;
    context.clearRect(0, 0, side, side);
    for (const [row, column, count] of cells) {
      const x = (column - view.x) * cell, y = (row - view.y) * cell;
      if (x + cell < 0 || y + cell < 0 || x > side || y > side) continue;
      const share = count / totals[row];
      context.globalAlpha = 0.12 + 0.88 * Math.sqrt(share);
      context.fillStyle = colour(row === column ? "--s2" : "--s1");
      context.fillRect(x, y, Math.max(cell - (cell > 6 * ratio ? ratio : 0), 1), Math.max(cell - (cell > 6 * ratio ? ratio : 0), 1));
      context.globalAlpha = 1;
      if (cell > 26 * ratio) {
        context.fillStyle = colour("--ink");
        context.font = `${12 * ratio}px system-ui, sans-serif`;
        context.textAlign = "center"; context.textBaseline = "middle";
        context.fillText(count, x + cell / 2, y + cell / 2);
      }
    }
    if (chosen) {
      context.strokeStyle = colour("--ink"); context.lineWidth = 2 * ratio;
      context.strokeRect((chosen[1] - view.x) * cell, (chosen[0] - view.y) * cell, cell, cell);
    }
  };
  const bound = () => {
    view.size = Math.max(Math.min(n, 4), Math.min(n, view.size));
    view.x = Math.max(0, Math.min(n - view.size, view.x));
    view.y = Math.max(0, Math.min(n - view.size, view.y));
    draw();
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const zoom = (factor, [x, y]) => {
    const size = Math.max(Math.min(n, 4), Math.min(n, view.size * factor));
    view.x += x * (view.size - size); view.y += y * (view.size - size); view.size = size;
    bound();
  };
  const choose = ([x, y]) => {
    const row = Math.floor(view.y + y * view.size), column = Math.floor(view.x + x * view.size);
    if (row < 0 || column < 0 || row >= n || column >= n) return;
    chosen = [row, column];
    const count = counts.get(row * n + column) || 0;
    readout.textContent = row === column
      ? `${classes[row]}: ${count} of ${totals[row]} recognised`
      : `${classes[row]} taken for ${classes[column]}: ${count} of ${totals[row]}`;
    draw();
  };
  const pointers = new Map();
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, place(event)); }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, place(event)); canvas.setPointerCapture(event.pointerId); choose(place(event)); });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event), before = pointers.get(event.pointerId);
    if (!before) { choose(now); return; }
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    if (others.length > 0) {
      const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1e-3;
      zoom(distance(before, others[0]) / distance(now, others[0]), now);
    } else {
      view.x -= (now[0] - before[0]) * view.size; view.y -= (now[1] - before[1]) * view.size;
      bound();
    }
    pointers.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "+" || event.key === "-") zoom(event.key === "-" ? 1.5 : 1 / 1.5, [0.5, 0.5]);
    else if (move) {
      const [row, column] = chosen || [0, 0];
      choose([(column + move[1] + 0.5 - view.x) / view.size, (row + move[0] + 0.5 - view.y) / view.size]);
      event.preventDefault();
    }
  });
  for (const button of figure.querySelectorAll("button")) button.addEventListener("click", () => {
    const kind = button.dataset.zoom;
    if (kind === "all") { view = { x: 0, y: 0, size: n }; bound(); } else zoom(kind === "in" ? 1 / 1.6 : 1.6, [0.5, 0.5]);
  });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}
