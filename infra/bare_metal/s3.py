"""Ceph's gateway as the stack's S3 server, which keeps its objects in the stack's folder."""

import json
import os

from infra.bare_metal.places import REPOSITORY, Places, StackError


class Ceph:
    def __init__(self, places: Places, port: int) -> None:
        self.folder, self.port = places.home / "s3", port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def command(self) -> list[str]:
        return [str(REPOSITORY / "infra" / "ceph-rgw.sh"), "--keep", str(self.folder), "--port", str(self.port)]

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "CEPH_HOME", "LANG")}

    @property
    def reach(self) -> dict[str, str]:
        """How clients reach it; empty until it has run once and made its key."""
        user = self.folder / "user.json"
        if not (self.folder / "made").exists():
            return {}
        try:
            (key,) = json.loads(user.read_text())["keys"]
        except (ValueError, KeyError) as error:
            raise StackError(f"{user} names no key ({error!r}): stop the stack, remove {self.folder}") from None
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": key["access_key"],
            "AWS_SECRET_ACCESS_KEY": key["secret_key"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "FSSPEC_S3_ENDPOINT_URL": self.url,
        }
