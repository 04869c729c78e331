// Draws the figure that the page holds as JSON, in the colours of the page.
const { data, layout } = JSON.parse(document.getElementById("figure").textContent);
const { color: ink } = getComputedStyle(document.body);
const { backgroundColor: card, borderBottomColor: rule } = getComputedStyle(
  document.querySelector("header"),
);
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const shades = { "#0067a8": "#58b0ee", "#757d87": "#8d98a6", "#b84a00": "#ff9457" };
for (const { line } of data) if (dark && line.color in shades) line.color = shades[line.color];
Object.assign(layout, {
  title: {}, // the heading of the page says it
  paper_bgcolor: card,
  plot_bgcolor: card,
  font: { color: ink },
  hoverlabel: { bgcolor: card, font: { color: ink } },
  legend: { orientation: "h", y: -0.08 },
  margin: { l: 52, r: 12, t: 40, b: 40 },
});
for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
  Object.assign(layout[name], { gridcolor: rule, zerolinecolor: rule, linecolor: rule });
}
Plotly.newPlot("curves", data, layout, {
  responsive: true,
  displaylogo: false,
  showTips: false, // the page says how to zoom
  // Of the others one would share the figure with a foreign host, and one needs blob: in the policy.
  modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
});
