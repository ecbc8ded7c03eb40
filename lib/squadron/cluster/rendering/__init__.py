"""Files from a specification: manifests for Kubernetes, and files of `ray up`."""
