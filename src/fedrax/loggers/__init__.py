"""Where the rows of a run go while it trains, beside its own records: TensorBoard, Weights & Biases, MLflow."""
