/** A line to a server, which breaks in the middle of its answers. */
import { connect, createServer, type Server as Listener, type Socket } from "node:net";

/** How much comes of an answer before it breaks off: Infinity until that much of it is there. */
type Cut = (came: string) => number;

/** Up to the middle of one of its events: the same place however many bytes or words they have. */
export const insideEvent =
  (number: number): Cut =>
  (came) => {
    const begins = came.split("\ndata: ", number);
    const length = begins.join("\ndata: ").length + "\ndata: ".length + 5;
    return begins.length === number && came.length >= length ? length : Infinity;
  };

export const insideHead: Cut = (came) => (came.length >= 60 ? 60 : Infinity);

const ANSWERS = /^(POST \/v1\/chat\/completions|GET \/v1\/generations\/)/u;

export class Line {
  /** What was asked that an answer streams to, in its order. */
  readonly asked: string[] = [];
  private readonly sockets = new Set<Socket>();
  private readonly held: (() => void)[] = [];
  private constructor(
    private readonly listener: Listener,
    private readonly cuts: Cut[],
    private holds: boolean,
  ) {}

  /**
   * @param cuts what has come of each answer when it breaks off, in their order; those after them come whole.
   * @param holds whether an answer stands still there until `breakNow`: a browser throws away what it has not read of a broken one.
   */
  static async to(port: number, cuts: Cut[], holds = false): Promise<Line> {
    const listener = createServer();
    const line = new Line(listener, [...cuts], holds);
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

  breakNow(): void {
    this.holds = false;
    for (const end of this.held.splice(0)) end();
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy();
    this.listener.close();
  }

  private join(near: Socket, far: Socket): void {
    let cut: Cut | undefined;
    let came = "";
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
        cut = this.cuts.shift();
        came = "";
      }
      far.write(bytes);
    });
    far.on("data", (bytes) => {
      if (!cut) return void near.write(bytes);
      came += bytes.toString("latin1");
      const over = came.length - cut(came);
      if (over < 0) return void near.write(bytes);
      // What was sent before arrives, and then nothing more.
      far.pause();
      near.write(bytes.subarray(0, bytes.length - over));
      if (this.holds) this.held.push(end);
      else near.end(end);
    });
  }
}
