"""Whether the operator may and should act: rights, policies, who may use what."""
