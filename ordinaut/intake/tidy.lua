-- Takes consumers out of a group that have had nothing in hand and not been heard of for so long. In one go,
-- because what is pending with a consumer goes with it.
local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local about = {}
    for n = 1, #consumer, 2 do
        about[consumer[n]] = consumer[n + 1]
    end
    if about.pending == 0 and about.idle > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
        gone = gone + 1
    end
end
return gone
