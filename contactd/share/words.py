"""What the helper's windows say, in each language; questions and rights are the agreement's."""

from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "zh": {
        "title": "远程协助",
        "connecting": "正在连接{service}……",
        "waiting": "已连接，等待工程师。现在没有人能看到您的屏幕。工单 {ticket}",
        "sharing": "{engineers} 正在查看您的屏幕",
        "looking": "旁观：{lookers}",
        "counts": "{time} · 按键 {keys} · 点击 {clicks} · 正在录像",
        "unread": "新消息 {unread} 条，请看网页",
        "lost": "连接已断开：没有共享任何内容。",
        "ended": "远程协助已结束，没有人再能看到您的屏幕。",
        "refused": "无法连接：下载的文件只能用一次，十分钟内有效。请在网页上重新下载。",
        "unreachable": "无法连接到服务：{reason}",
        "stop": "停止（{hotkey}）",
        "again": "重新连接",
        "close": "关闭",
        "yes": "同意",
        "no": "不同意",
        "bytes": "{size} 字节",
        "wayland": "此桌面使用 Wayland，暂时不能共享。请注销后选择“Xorg”登录，"
        "或在网页上选择只查看方式。",
        "no_display": "没有找到图形桌面（DISPLAY）。请在桌面里的终端中启动本程序。",
        "no_hotkey": "此桌面无法监听停止热键，因此不能共享。",
        "no_server": "缺少 VNC 服务程序。请先安装 x11vnc（例如：sudo apt install x11vnc）。",
        "no_window": "缺少 Tk。请先安装 python3-tk（例如：sudo apt install python3-tk）。",
        "no_invitation": "此文件不完整。请在网页上重新下载。",
    },
    "en": {
        "title": "Remote help",
        "connecting": "Connecting to {service} …",
        "waiting": "Connected, waiting for the engineer. Nobody can see your screen now. "
        "Ticket {ticket}",
        "sharing": "{engineers} can see your screen",
        "looking": "Watching: {lookers}",
        "counts": "{time} · {keys} keys · {clicks} clicks · recorded",
        "unread": "{unread} new messages on the page",
        "lost": "The connection was lost: nothing is shared.",
        "ended": "Remote help has ended. Nobody can see your screen any more.",
        "refused": "Not connected: the file works once, for ten minutes. Please download it again "
        "from the page.",
        "unreachable": "The service cannot be reached: {reason}",
        "stop": "Stop ({hotkey})",
        "again": "Connect again",
        "close": "Close",
        "yes": "Yes, allow",
        "no": "No",
        "bytes": "{size} bytes",
        "wayland": "This desktop runs on Wayland and cannot be shared yet. Log in again with "
        "“Xorg”, or choose on the page to only show your screen.",
        "no_display": "There is no graphical desktop here (DISPLAY). Start this program from a "
        "terminal on the desktop.",
        "no_hotkey": "This desktop cannot watch for the stop key, so it is not shared.",
        "no_server": "There is no VNC server. Please install x11vnc first "
        "(for example: sudo apt install x11vnc).",
        "no_window": "There is no Tk. Please install python3-tk first "
        "(for example: sudo apt install python3-tk).",
        "no_invitation": "This file is not complete. Please download it again from the page.",
    },
}


def say(language: str, key: str, **parts: object) -> str:
    """Return words in a language, English if we do not have it."""
    return WORDS.get(language, WORDS["en"])[key].format(**parts)
