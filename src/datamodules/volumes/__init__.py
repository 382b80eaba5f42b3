"""Volumes of the user with a class per voxel: cases, checks, crops, predictions; BraTS and nnU-Net share them."""
