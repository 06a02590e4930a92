"""A small desk: 王伟 before 李娜 in Guangzhou, 陈静 before James in Shenzhen, nobody in Zhuhai."""

from collections.abc import Sequence
from typing import Any

from contactd.routing.deskfile import DeskFile, parse

FLOOR = "13800000090"
FROM_GZ = "02038880001"
FROM_SZ = "075528880001"
FROM_ZH = "07562888001"
VIP = "13900000001"
STRANGER = "13912345678"
EVERY_SITE = ("gz", "sz", "zh")


def _shift(site: str, tier: int, engineer: str) -> dict[str, Any]:
    return {"site": site, "tier": tier, "engineer": engineer, "start": "00:00", "end": "24:00"}


def small_desk(*, sites: Sequence[str] = EVERY_SITE) -> DeskFile:
    """Return the desk, or what is left of it without some of the sites."""
    return parse(desk_document(sites=sites))


def desk_document(*, sites: Sequence[str] = EVERY_SITE) -> dict[str, Any]:
    """Return the desk as its file has it."""
    names = {"gz": ("广州", "20"), "sz": ("深圳", "755"), "zh": ("珠海", "756")}
    numbers = {
        "wang": ("王伟", "13800000001", "zh"),
        "li": ("李娜", "13800000002", "zh"),
        "chen": ("陈静", "13800000003", "zh"),
        "james": ("James Wong", "13800000004", "en"),
    }
    on_duty = (("gz", 1, "wang"), ("gz", 2, "li"), ("sz", 1, "chen"), ("sz", 3, "james"))
    return {
        "sites": [
            {"key": key, "name_zh": name, "name_en": key, "floor": FLOOR, "area_code": code}
            for key, (name, code) in names.items()
            if key in sites
        ],
        "engineers": [
            {"key": key, "name": name, "number": number, "language": language}
            for key, (name, number, language) in numbers.items()
        ],
        "people": [
            {
                "key": "ceo",
                "name": "梁总",
                "site": "gz",
                "vip": True,
                "language": "en",
                "numbers": [VIP],
            }
        ]
        if "gz" in sites
        else [],
        "shifts": [_shift(*one) for one in on_duty if one[0] in sites],
    }
