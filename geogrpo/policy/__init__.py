"""The policy: model, packing, attention, processing."""
