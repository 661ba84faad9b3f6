"""Figures of merit, fed with raw outputs; apart from the tasks because torchmetrics takes seconds to import."""
