-- Publishes events on the stream KEYS[1], each under the ID <position>-0, and answers with the last
-- position that is in the stream afterwards.
--
-- KEYS[1] the stream; KEYS[2] whose log it is (shares the stream's slot in a cluster)
-- ARGV[1] the log's id; ARGV[2] MAXLEN; ARGV[3] the head of the log; ARGV[4] the first position given
-- ARGV[5…] the events, one JSON text a line, in order and without gaps
--
-- Two relays may publish the same events at the same time: what is in the stream already is passed
-- over, and a batch that would leave a gap adds nothing, so the stream is contiguous whoever writes.

local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then
  return redis.error_reply('OTHERLOG ' .. owner)
end

local last = 0
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      last = tonumber(string.match(info[i + 1], '^(%d+)'))
    end
  end
elseif redis.call('EXISTS', KEYS[1]) == 1 then
  return redis.error_reply('NOTASTREAM ' .. info.err)
end
if last > tonumber(ARGV[3]) then
  return redis.error_reply('AHEAD ' .. string.format('%.0f', last))
end

if not owner then
  redis.call('SET', KEYS[2], ARGV[1])
end
-- The events must follow what is there. An empty stream begins as far back as it can hold; it may be
-- empty because somebody flushed it since the relay looked.
local position = tonumber(ARGV[4])
local follows = last + 1
if last == 0 then
  follows = math.max(0, tonumber(ARGV[3]) - tonumber(ARGV[2])) + 1
end
if position > follows then
  return last
end
for i = 5, #ARGV do
  local from = 1
  while from <= #ARGV[i] do
    local to = string.find(ARGV[i], '\n', from, true) or #ARGV[i] + 1
    if position > last then
      redis.call('XADD', KEYS[1], string.format('%d-0', position), 'event', string.sub(ARGV[i], from, to - 1))
      last = position
    end
    position = position + 1
    from = to + 1
  end
end
-- Once, because as a part of each XADD it would cost a sixth of that.
if #ARGV >= 5 then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2])
end
return last
