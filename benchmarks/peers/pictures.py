"""A web server that answers each picture 50 ms late: `python benchmarks/peers/pictures.py FOLDER PORT`."""

import asyncio
import sys
from pathlib import Path

LATENCY_S = 0.05


async def serve(bodies: dict[str, bytes], port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


pictures = {path.name: path.read_bytes() for path in Path(sys.argv[1]).glob("*.jpg")}
asyncio.run(serve(pictures, int(sys.argv[2])))
