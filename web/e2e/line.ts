/** A line to a server, which breaks in the middle of its answers. */
import { connect, createServer, type Server as Listener, type Socket } from "node:net";

const ANSWERS = /^(POST \/v1\/chat\/completions|GET \/v1\/generations\/)/u;

export class Line {
  /** What was asked that an answer streams to, in its order. */
  readonly asked: string[] = [];
  private readonly sockets = new Set<Socket>();
  private constructor(
    private readonly listener: Listener,
    private readonly cuts: number[],
  ) {}

  /** @param cuts of how many bytes each answer breaks off, in their order; those after them come whole. */
  static async to(port: number, cuts: number[]): Promise<Line> {
    const listener = createServer();
    const line = new Line(listener, [...cuts]);
    listener.on("connection", (near) => line.join(near, connect(port, "127.0.0.1")));
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    return line;
  }

  get url(): string {
    const address = this.listener.address();
    return `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
  }

  /** How many breaks are still to come. */
  get left(): number {
    return this.cuts.length;
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy();
    this.listener.close();
  }

  private join(near: Socket, far: Socket): void {
    let room = Infinity;
    const end = () => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      this.sockets.add(socket);
      socket.on("error", end).on("close", end);
    }
    near.on("data", (bytes) => {
      const [request = ""] = bytes.toString("latin1").split(" HTTP/", 1);
      if (ANSWERS.test(request)) {
        this.asked.push(request);
        room = this.cuts.shift() ?? Infinity;
      }
      far.write(bytes);
    });
    far.on("data", (bytes) => {
      room -= bytes.length;
      if (room > 0) near.write(bytes);
      // What was sent before arrives, and then nothing more.
      else near.end(bytes.subarray(0, bytes.length + room), end);
    });
  }
}
