-- load_shed.lua - what load_shed.py has wrk do: requests at a mean pace, each one noted in a file.
--
--   wrk -s load_shed.lua URL -- LOG PERIOD      one thread; PERIOD: milliseconds between an answer
--                                               and the connection's next request, on average; 0: none
--
-- LOG has a line for each request, "S sent", and for each answer, "A sent now status", with times in
-- microseconds of the monotonic clock.  `sent` comes back from the server, and names the request.

local ffi = require("ffi")
ffi.cdef [[
    typedef struct { long seconds, nanoseconds; } weir_time;
    int clock_gettime(int clock, weir_time *ret);
]]

local clock, last, is_tried = ffi.new("weir_time"), 0, false

local function now()
    ffi.C.clock_gettime(1, clock)
    return tonumber(clock.seconds) * 1000000 + math.floor(tonumber(clock.nanoseconds) / 1000)
end

function init(args)
    log = io.open(args[1], "w")
    log:setvbuf("line")
    period = tonumber(args[2])
    math.randomseed(1)
end

function delay()
    return math.random(0, 2 * period)
end

function request()
    last = math.max(last + 1, now())
    local sent = string.format("%d", last)
    if is_tried then
        log:write("S ", sent, "\n")
    end
    is_tried = true -- wrk looks at the first one and does not send it
    return wrk.format("GET", nil, { ["X-Sent"] = sent })
end

function response(status, headers, body)
    log:write(string.format("A %s %d %d\n", headers["x-sent"] or headers["X-Sent"], now(), status))
end
