// The JavaScript SDK through the proxy, with keys that are good for nothing: node aws_client.mjs ENDPOINT PROXY BUCKET
import { Readable } from "node:stream";
import {
  CompleteMultipartUploadCommand, CreateMultipartUploadCommand, GetObjectCommand, ListObjectsV2Command, PutObjectCommand,
  S3Client, UploadPartCommand,
} from "@aws-sdk/client-s3";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { HttpsProxyAgent } from "https-proxy-agent";

const [endpoint, proxy, Bucket] = process.argv.slice(2);
const agent = new HttpsProxyAgent(proxy, { keepAlive: true });
const client = new S3Client({
  endpoint,
  region: "eu-west-1",
  forcePathStyle: true,
  maxAttempts: 1,
  credentials: { accessKeyId: "AKIADUMMY", secretAccessKey: "dummy", sessionToken: "dummy-token" },
  requestHandler: new NodeHttpHandler({ httpAgent: agent, httpsAgent: agent }),
});

const Key = "js/a b+ü(1)'~*.txt";
const text = "x".repeat(300_000) + "end";
await client.send(new PutObjectCommand({ Bucket, Key, Body: text, Metadata: { note: "two  blanks" } }));
const got = await client.send(new GetObjectCommand({ Bucket, Key }));
if ((await got.Body.transformToString()) !== text) throw new Error("another body");

// A stream: its checksum comes in a trailer.
const pieces = Array.from({ length: 40 }, (_, n) => Buffer.alloc(65_536, n));
const ContentLength = 40 * 65_536;
await client.send(new PutObjectCommand({ Bucket, Key: "js/stream", Body: Readable.from(pieces), ContentLength }));
const stream = await (await client.send(new GetObjectCommand({ Bucket, Key: "js/stream" }))).Body.transformToByteArray();
if (Buffer.compare(Buffer.from(stream), Buffer.concat(pieces))) throw new Error("another stream");

const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key: "js/parts" }));
const Parts = [];
for (const PartNumber of [1, 2]) {
  const Body = Buffer.alloc(PartNumber === 1 ? 5 << 20 : 1000, PartNumber);
  const { ETag } = await client.send(new UploadPartCommand({ Bucket, Key: "js/parts", UploadId, PartNumber, Body }));
  Parts.push({ PartNumber, ETag });
}
await client.send(new CompleteMultipartUploadCommand({ Bucket, Key: "js/parts", UploadId, MultipartUpload: { Parts } }));

const listed = await client.send(new ListObjectsV2Command({ Bucket, Prefix: "js/", Delimiter: "/" }));
console.log(JSON.stringify(listed.Contents.map(({ Key, Size }) => [Key, Size])));
