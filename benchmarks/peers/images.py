"""A web server of images with 50 ms latency: `python benchmarks/peers/images.py FOLDER PORT`."""

import asyncio
import sys
from pathlib import Path

LATENCY_S = 0.05


async def serve(bodies: dict[str, bytes], port: int) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                name = request.split(b" ", 2)[1].decode().rpartition("/")[2].partition("?")[0]
                await asyncio.sleep(LATENCY_S)
                body = bodies[name]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body))
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


images = {path.name: path.read_bytes() for path in Path(sys.argv[1]).glob("*.jpg")}
asyncio.run(serve(images, int(sys.argv[2])))
