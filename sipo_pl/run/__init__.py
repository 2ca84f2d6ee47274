"""`sipo_pl run`: the runner, stage processes, a stage in its folder, devices, the estimate."""
