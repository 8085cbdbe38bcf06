"""A checkpoint of the planned pipeline that plain diffusers reloads."""
