"use strict";
(() => {
  /* Only buttons that stay on this page: plotly's default bar can send a chart to its maker's cloud. */
  const CONFIG = {
    displaylogo: false,
    displayModeBar: !matchMedia("(max-width: 640px)").matches,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    plotlyServerURL: "",
    showSendToCloud: false,
  };
  const specs = new Map();
  const state = new Map();

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /* Ink, grid and font come from the page, so that figures follow its light or dark theme. */
  function template() {
    const axis = { gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--line"), tickfont: { color: css("--muted") } };
    return {
      layout: {
        font: { family: css("--sans"), size: 12.5, color: css("--ink") },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        xaxis: axis,
        yaxis: axis,
        modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--accent") },
        hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--muted"), font: { color: css("--ink"), family: css("--sans") } },
      },
    };
  }

  function rescaled(trace, scale) {
    const kept = trace.meta && trace.meta.scales;
    if (!kept || !kept[scale]) return trace;
    const [low, high] = trace.meta.limits[scale];
    return { ...trace, z: kept[scale], zmin: low, zmax: high };
  }

  function draw(element) {
    const spec = specs.get(element.id);
    const chosen = state.get(element.dataset.group) || {};
    const variant = spec.variants[chosen.variant] || spec.variants[spec.default];
    if (variant.note) {
      Plotly.purge(element);
      element.replaceChildren(Object.assign(document.createElement("p"), { className: "missing", textContent: variant.note }));
      element.dataset.drawn = "note";
      return;
    }
    if (element.dataset.drawn === "note") element.replaceChildren();
    const data = variant.data.map((trace) => rescaled(trace, chosen.scale || "raw"));
    Plotly.react(element, data, { ...variant.layout, template: template() }, CONFIG);
    element.dataset.drawn = "plot";
  }

  function apply(group) {
    const chosen = state.get(group);
    for (const part of document.querySelectorAll("[data-variant]"))
      if (part.dataset.group === group) part.classList.toggle("other", part.dataset.variant !== chosen.variant);
    for (const input of document.querySelectorAll("input[data-control]"))
      if (input.dataset.group === group) input.checked = chosen[input.dataset.control] === input.value;
    for (const element of document.querySelectorAll(".canvas")) if (element.dataset.group === group) draw(element);
  }

  for (const script of document.querySelectorAll("script[data-figure]")) specs.set(script.dataset.figure, JSON.parse(script.textContent));
  for (const input of document.querySelectorAll("input[data-control]")) {
    const { group, control } = input.dataset;
    if (!state.has(group)) state.set(group, {});
    if (input.checked) state.get(group)[control] = input.value;
    input.addEventListener("change", () => {
      state.get(group)[control] = input.value;
      apply(group);
    });
  }
  document.documentElement.classList.add("live");
  const widths = new Map();
  const observer = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      const changed = widths.has(target.id) && widths.get(target.id) !== contentRect.width;
      widths.set(target.id, contentRect.width);
      if (changed && target.dataset.drawn === "plot") Plotly.Plots.resize(target);
    }
  });
  document.querySelectorAll(".canvas").forEach((element) => observer.observe(element));
  const redraw = () => document.querySelectorAll(".canvas").forEach(draw);
  redraw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();
