-- Argo CD's health check of a WorkflowRun. A run that waits (for a node, a quota, a source) is not broken: its
-- deadlines end that. It is healthy when it has succeeded and nothing of its secrets is left.
local function condition(kind)
  for _, item in ipairs(obj.status.conditions or {}) do
    if item.type == kind then return item end
  end
  return {status = "Unknown"}
end

-- What has ended is not looked at again, whatever is changed of it since.
local ended = {Succeeded = true, Failed = true, Cancelled = true}
local status = obj.status
if status == nil or status.phase == nil
  or (status.observedGeneration ~= obj.metadata.generation and not ended[status.phase]) then
  return {status = "Progressing", message = "The operator has not looked at it yet"}
end
if status.phase == "Failed" or status.phase == "Cancelled" then
  local failed = condition("Failed")
  return {status = "Degraded", message = status.phase .. ": " .. (failed.message or failed.reason or "")}
end
if status.phase == "Suspended" then
  return {status = "Suspended", message = "Suspended: nothing of it is started"}
end
if status.phase ~= "Succeeded" then
  for _, kind in ipairs({"Stalled", "Reconciling"}) do
    local found = condition(kind)
    if found.status == "True" and (found.message or "") ~= "" then
      return {status = "Progressing", message = "Waits: " .. found.message}
    end
  end
  return {status = "Progressing", message = status.phase .. ", tasks done: " .. (status.tasksDone or "0")}
end
if condition("SecretsReleased").status ~= "True" then
  return {status = "Progressing", message = "Succeeded; a Secret of it may still exist"}
end
return {status = "Healthy", message = "Succeeded; secrets were in the cluster for " .. (status.exposed or "0.0s")}
