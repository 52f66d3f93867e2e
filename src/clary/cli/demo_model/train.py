"""Train the demonstration model: which iris is it, by the four measurements of a flower?

    python train.py OUT_DIR

writes OUT_DIR/model.joblib and OUT_DIR/code/inference.py, the files of a SageMaker model, and prints one line of JSON.
"""

import json
import shutil
import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(out: Path) -> None:
    iris = load_iris()
    species = iris.target_names[iris.target]
    train_x, test_x, train_y, test_y = train_test_split(iris.data, species, test_size=0.3, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train_x, train_y)
    code = out / "code"
    code.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, out / "model.joblib")
    shutil.copyfile(Path(__file__).with_name("inference.py"), code / "inference.py")
    print(
        json.dumps(
            {
                "accuracy": round(model.score(test_x, test_y), 3),
                "trained_on": len(train_x),
                "held_out": len(test_x),
                "features": iris.feature_names,
                "classes": model.classes_.tolist(),
            }
        )
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python train.py OUT_DIR")
    main(Path(sys.argv[1]))
