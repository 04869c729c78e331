-- Asks one route again and again; arguments: path, body with {n} where each question differs.
local path, body, n

function init(arguments)
  path, body, n = arguments[1], arguments[2], tonumber(arguments[3])
end

function request()
  n = n + 1
  local asked = string.gsub(body, "{n}", string.format("%.4f", n / 10000))
  return wrk.format("POST", path, {["Content-Type"] = "application/json"}, asked)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, failed,
    summary.duration, latency:percentile(50), latency:percentile(95), latency.max))
end
