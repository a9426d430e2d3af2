"""A WebSocket echo over TLS that lets in only who has the right Authorization: port, certificate file, token."""

import asyncio
import http
import ssl
import sys

import websockets


def guard(connection, request):
    if request.headers.get("Authorization") != f"Bearer {sys.argv[3]}":
        return connection.respond(http.HTTPStatus.UNAUTHORIZED, "no\n")


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2])
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), ssl=tls, process_request=guard, max_size=None):
        await asyncio.Future()


asyncio.run(main())
