"""The parts of a GRPO step, in the order of the step: sampling, what is learned from it, the reference, metrics."""
