-- Argo CD: resource.customizations.health.maft.dev_MultiAgentFinetune, and the same under
-- resource.customizations.health.maft.dev_MultiAgentComparison and resource.customizations.health.maft.dev_Society
local health = { status = "Progressing", message = "waiting for the operator" }
if obj.status == nil or obj.status.conditions == nil then
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local function is(kind, value)
  return found[kind] ~= nil and found[kind].status == value
end
if obj.metadata.generation ~= nil and obj.status.observedGeneration ~= nil and obj.status.observedGeneration < obj.metadata.generation then
  return health
end
if found.Ready ~= nil then -- a Society: it is never over
  if is("Stalled", "True") then
    return { status = "Degraded", message = found.Stalled.message }
  end
  if is("Reconciling", "True") then
    return { status = "Progressing", message = found.Reconciling.message }
  end
  return { status = is("Ready", "True") and "Healthy" or "Suspended", message = found.Ready.message }
end
if is("Accepted", "False") then
  return { status = "Degraded", message = found.Accepted.message }
end
if is("Failed", "True") then
  return { status = "Degraded", message = found.Failed.message }
end
if is("Complete", "True") then
  return { status = "Healthy", message = "complete" }
end
if is("Suspended", "True") then
  return { status = "Suspended", message = found.Suspended.message }
end
if is("Progressing", "False") then
  return { status = "Degraded", message = found.Progressing.message }
end
health.message = obj.status.phase
return health
