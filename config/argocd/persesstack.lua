-- Health of a PersesStack for Argo CD, by its conditions Ready, Reconciling, Stalled and Suspended.
local health = { status = "Progressing", message = "the operator has not looked at it yet" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
-- A status of an older spec says nothing about this one.
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not looked at the latest spec yet"
  return health
end
local function is(type, value)
  return found[type] ~= nil and found[type].status == value
end
if is("Stalled", "True") then
  return { status = "Degraded", message = found.Stalled.message }
end
if is("Suspended", "True") then
  return { status = "Suspended", message = found.Suspended.message }
end
if is("Reconciling", "True") then
  return { status = "Progressing", message = found.Reconciling.message }
end
if is("Ready", "True") then
  return { status = "Healthy", message = found.Ready.message }
end
if found.Ready ~= nil then
  return { status = "Degraded", message = found.Ready.message }
end
return health
