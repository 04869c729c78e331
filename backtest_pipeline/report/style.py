"""How the HTML pages look that are written of runs and of sweeps."""

STYLE = """\
  body { margin: 0; background: #f6f8fa; color: #1f2328;
         font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
  main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 48px; }
  h1 { font-size: 26px; margin: 0 0 2px; }
  h2 { font-size: 17px; margin: 28px 0 10px; }
  p { margin: 0 0 14px; color: #57606a; }
  .warning { background: #fff8c5; border: 1px solid #d4a72c66; color: #3b2e05;
             border-radius: 8px; padding: 10px 14px; }
  .tiles { display: grid; gap: 12px; margin: 0 0 16px;
           grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); }
  .tile, .card { background: white; border: 1px solid #d0d7de; border-radius: 8px; }
  .tile { padding: 10px 14px; display: flex; flex-direction: column; }
  .tile span, .tile small { color: #57606a; font-size: 13px; }
  .tile b { font-size: 24px; font-variant-numeric: tabular-nums; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
"""
