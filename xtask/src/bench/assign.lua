-- What a rollout of Lanekeeper does, as one would write it in Lua: x-app-version by the version
-- cookie, else by the user's slot, and a cookie for those who have none. It counts nothing.

local bit = require("bit")
local band, bxor, rol, rshift, tobit = bit.band, bit.bxor, bit.rol, bit.rshift, bit.tobit

-- The low 32 bits of a product; a number holds 53.
local function mul(a, b)
  local low, high = band(a, 0xffff), rshift(a, 16)
  return tobit(low * b + band(high * band(b, 0xffff), 0xffff) * 65536)
end

local function mix(block)
  return mul(rol(mul(block, 0xcc9e2d51), 15), 0x1b873593)
end

-- murmur3_x86_32 with seed 0.
local function murmur3(text)
  local hash, length = 0, #text
  local whole = length - length % 4
  for at = 1, whole, 4 do
    local a, b, c, d = text:byte(at, at + 3)
    hash = bxor(hash, mix(tobit(a + b * 256 + c * 65536 + d * 16777216)))
    hash = tobit(mul(rol(hash, 13), 5) + 0xe6546b64)
  end
  if whole < length then
    local rest = 0
    for at = length, whole + 1, -1 do
      rest = rest * 256 + text:byte(at)
    end
    hash = bxor(hash, mix(rest))
  end
  hash = bxor(hash, length)
  hash = mul(bxor(hash, rshift(hash, 16)), 0x85ebca6b)
  hash = mul(bxor(hash, rshift(hash, 13)), 0xc2b2ae35)
  hash = bxor(hash, rshift(hash, 16))
  return hash % 4294967296
end

local versions = { stable = true, canary = true }

function envoy_on_request(handle)
  local headers = handle:headers()
  local cookies = headers:get("cookie")
  local kept = cookies and cookies:match("app%-version=([%w-]+)%.0%.%d+")
  local override = headers:get("x-experiment")
  local version
  if versions[override] then
    version = override
  elseif versions[kept] then
    version = kept
  else
    local user = headers:get("x-user") or ""
    version = murmur3("bench:" .. user) % 10000 < 9000 and "stable" or "canary"
    local cookie = "app-version=" .. version .. ".0." .. math.floor(os.time() / 86400)
      .. "; Path=/; Max-Age=2592000; SameSite=Lax"
    handle:streamInfo():dynamicMetadata():set("bench", "cookie", cookie)
  end
  headers:replace("x-app-version", version)
end

function envoy_on_response(handle)
  local kept = handle:streamInfo():dynamicMetadata():get("bench")
  if kept then
    handle:headers():add("set-cookie", kept.cookie)
  end
end
