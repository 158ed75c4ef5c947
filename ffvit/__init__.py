"""Attention-free vision models and the FFCV pipeline that trains them on ImageNet."""

__version__ = "0.1.0"
