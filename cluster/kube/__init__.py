"""Manifests for KubeRay, made from the spec."""
