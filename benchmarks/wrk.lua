-- Sends the requests of a file in turn (lines of method, path, token, body, separated by tabs) and writes what came of
-- them as JSON on the last line. Arguments: the file, and a number to start from.
-- A row of twelve # becomes the number of the request, so that each can have a name of its own.
local PLACE = ("#"):rep(12)
local texts, numbered = {}, false
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init(arguments)
  number, refused = tonumber(arguments[2]), 0
  for line in io.lines(arguments[1]) do
    local method, path, token, body = line:match("^(.-)\t(.-)\t(.-)\t(.*)$")
    local headers = {["Content-Type"] = body ~= "" and "application/json" or nil}
    if token ~= "" then headers["Authorization"] = "Bearer " .. token end
    texts[#texts + 1] = wrk.format(method, path, headers, body ~= "" and body or nil)
    numbered = numbered or body:find(PLACE, 1, true)
  end
end

function response(status, headers)
  if status == 503 and headers["retry-after"] then refused = refused + 1 end
end

function request()
  number = number + 1
  local text = texts[number % #texts + 1]
  return numbered and text:gsub(PLACE, ("%012d"):format(number)) or text
end

function done(summary, latency)
  local refused = 0
  for _, thread in ipairs(threads) do refused = refused + thread:get("refused") end
  local errors = summary.errors
  io.write(("\n{\"requests\": %d, \"seconds\": %f, \"p50_ms\": %f, \"p99_ms\": %f, "):format(
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
  io.write(("\"bad_statuses\": %d, \"no_answers\": %d, \"refused\": %d}\n"):format(
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, refused))
end
