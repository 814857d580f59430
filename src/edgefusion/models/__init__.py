"""Networks: EdgeFusion-UNet and its baselines."""
