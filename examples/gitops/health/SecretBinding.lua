-- Argo CD's health check of a SecretBinding: healthy when every value of it can be had.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not looked at it yet"}
end
for _, item in ipairs(obj.status.conditions or {}) do
  if item.type == "Ready" then
    if item.status == "True" then
      return {status = "Healthy", message = (obj.status.secrets or "") .. " values can be had"}
    end
    return {status = "Degraded", message = item.message or item.reason or ""}
  end
end
return {status = "Progressing", message = "The operator has not looked at it yet"}
