-- What a person's page does with documents, for wrk: four are read for each one that is written. The path of the
-- database and the headers are arguments: PATH SALT NAME VALUE …
local path, salt, count = '', '', 0

function init(args)
  path, salt = args[1], args[2]
  for at = 3, #args, 2 do wrk.headers[args[at]] = args[at + 1] end
  wrk.headers['content-type'] = 'application/json'
end

function request()
  count = count + 1
  if count % 5 == 0 then
    return wrk.format('PUT', path .. '/' .. salt .. '-' .. count, nil, '{"text":"buy milk, and bread for Sunday"}')
  end
  return wrk.format('GET', path .. '/note-' .. (count % 20), nil, '')
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p99": %.3f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
