"""Volumes of the user with a class per voxel: cases, checks, cache, crops, split; BraTS and nnU-Net share them."""
