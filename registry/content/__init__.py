"""What a registry does: uploads, blobs, manifests, tags, referrers."""
