-- wrk: asks for the paths of a file in turn, with the head a Nix client sends, and tells the
-- outcome as one line of JSON. The first argument names the file.

wrk.headers["User-Agent"] = "curl/8.14.1 Nix/2.28.4"
wrk.headers["Accept"] = "*/*"
wrk.headers["Accept-Encoding"] = "deflate, gzip, br, zstd"
local parent = os.getenv("TRACEPARENT_OF_WRK")
if parent and parent ~= "" then
  wrk.headers["traceparent"] = parent
end

local requests, turn = {}, 0

function init(args)
  for path in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'outcome {"requests": %d, "bytes": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "errors": %d}\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
