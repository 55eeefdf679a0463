// Checks @platformatic/kafka.

import zlib from 'node:zlib'

import { Admin, Consumer, ListOffsetTimestamps, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'

import { bootstrap, expect, main, prefix, until } from './features.mjs'

const base = { clientId: 'checks', bootstrapBrokers: [bootstrap] }
const admin = new Admin(base)
const TOPIC = 2
const SET = 0

async function newTopic(name, partitions = 1) {
  const topic = prefix + name
  const configs = [{ name: 'retention.ms', value: '-1' }]
  await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs })
  return topic
}

async function producing(options, use) {
  const producer = new Producer({ ...base, serializers: stringSerializers, ...options })
  await use(producer)
  await producer.close()
}

const fill = (topic, partitions, each) =>
  producing({}, producer => {
    const indexes = [...Array(partitions * each).keys()]
    return producer.send({ messages: indexes.map(index => ({ topic, partition: index % partitions, value: `value${index}` })) })
  })

const newConsumer = groupId => new Consumer({ ...base, groupId, deserializers: stringDeserializers })
const consuming = {
  autocommit: false, mode: 'earliest', sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTime: 100
}

async function read(topic, count, isolationLevel = 0) {
  const consumer = newConsumer(`${topic}-${isolationLevel}`)
  const stream = await consumer.consume({ ...consuming, topics: [topic], isolationLevel })
  const values = []
  for await (const message of stream) {
    values.push(message.value)
    if (values.length === count) {
      break
    }
  }
  await consumer.close(true)
  return values
}

async function committed(groupId) {
  const [group] = await admin.listConsumerGroupOffsets({ groups: [groupId], requireStable: false })
  const offsets = group.topics.flatMap(({ name, partitions }) => partitions.map(found => [name, Number(found.committedOffset)]))
  return offsets.filter(([, offset]) => offset >= 0)
}

async function commit(groupId, ...topics) {
  const partitionOffsets = [{ partition: 0, offset: 0n }]
  await admin.alterConsumerGroupOffsets({ groupId, topics: topics.map(name => ({ name, partitionOffsets })) })
}

const partitionCount = async topic => {
  const metadata = await admin.metadata({ topics: [topic], forceUpdate: true })
  return metadata.topics.get(topic).partitionsCount
}

async function topics() {
  const topic = await newTopic('topics', 2)
  expect(2, await partitionCount(topic))
  expect(true, await newTopic('topics').then(() => false, () => true))
  await admin.deleteTopics({ topics: [topic] })
  await until(async () => !(await admin.listTopics()).includes(topic))
}

async function partitions() {
  const topic = await newTopic('partitions')
  await admin.createPartitions({ topics: [{ name: topic, count: 3 }] })
  await until(async () => (await partitionCount(topic)) === 3)
}

async function configs() {
  const topic = await newTopic('configs')
  const wanted = { 'retention.ms': '60000', 'max.message.bytes': '2000' }
  const resource = { resourceType: TOPIC, resourceName: topic }
  for (const [name, value] of Object.entries(wanted)) {
    const configs = [{ name, value, configOperation: SET }]
    await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs }] })
  }
  const [described] = await admin.describeConfigs({ resources: [{ ...resource, configurationKeys: Object.keys(wanted) }] })
  for (const [name, value] of Object.entries(wanted)) {
    expect(value, described.configs.find(config => config.name === name).value)
  }
}

async function produce() {
  const topic = await newTopic('produce')
  const expected = []
  const codecs = ['none', 'gzip', 'snappy', 'lz4', ...('zstdCompressSync' in zlib ? ['zstd'] : [])]
  for (const compression of codecs) {
    await producing({ idempotent: true }, async producer => {
      const values = [...Array(100).keys()].map(index => compression + index)
      expected.push(...values)
      await producer.send({ compression, messages: values.map(value => ({ topic, value })) })
    })
  }
  expect(expected, await read(topic, expected.length))
}

async function group() {
  const topic = await newTopic('group', 4)
  await fill(topic, 4, 25)
  const groupId = `${prefix}group`
  const values = new Set()
  const join = async () => {
    const consumer = newConsumer(groupId)
    const stream = await consumer.consume({ ...consuming, mode: 'committed', fallbackMode: 'earliest', topics: [topic] })
    stream.on('data', message => {
      values.add(message.value)
      message.commit(() => {})
    })
    stream.on('error', () => {})
    return consumer
  }
  const assigned = consumer => consumer.assignments?.[0]?.partitions.length ?? 0
  const [first, second] = [await join(), await join()]
  await until(() => assigned(first) === 2 && assigned(second) === 2 && values.size === 100)
  await second.close(true)
  await until(() => assigned(first) === 4)
  await until(async () => (await committed(groupId)).reduce((sum, [, offset]) => sum + offset, 0) === 100)
  await first.close(true)
}

async function transactions() {
  const topic = await newTopic('transactions')
  await producing({ transactionalId: `${prefix}transactions`, idempotent: true }, async producer => {
    for (const end of ['commit', 'abort', 'commit']) {
      const transaction = await producer.beginTransaction()
      await transaction.send({ messages: [...Array(50).keys()].map(index => ({ topic, value: end + index })) })
      await transaction[end]()
    }
  })
  expect(150, (await read(topic, 150)).length)
  const values = await read(topic, 100, 1)
  expect([100, true], [values.length, values.every(value => value.startsWith('commit'))])
}

async function transactionOffsets() {
  const topic = await newTopic('transaction-offsets')
  await fill(topic, 1, 1)
  const groupId = `${prefix}transaction-offsets`
  const consumer = newConsumer(groupId)
  const stream = await consumer.consume({ ...consuming, topics: [topic] })
  const { value: message } = await stream[Symbol.asyncIterator]().next()
  await producing({ transactionalId: groupId, idempotent: true }, async producer => {
    for (const end of ['abort', 'commit']) {
      const transaction = await producer.beginTransaction()
      await transaction.addConsumer(consumer)
      await transaction.addOffset(message)
      await transaction[end]()
      await until(async () => (await committed(groupId)).length === (end === 'commit' ? 1 : 0))
    }
  })
  await consumer.close(true)
}

async function deleteGroups() {
  const groupId = `${prefix}delete-groups`
  await commit(groupId, await newTopic('delete-groups'))
  await admin.deleteGroups({ groups: [groupId] })
  expect(false, (await admin.listGroups()).has(groupId))
}

async function deleteOffsets() {
  const groupId = `${prefix}delete-offsets`
  const [deleted, kept] = [await newTopic('delete-offsets'), await newTopic('keep-offsets')]
  await commit(groupId, deleted, kept)
  await admin.deleteConsumerGroupOffsets({ groupId, topics: [{ name: deleted, partitionIndexes: [0] }] })
  expect([[kept, 0]], await committed(groupId))
}

async function deleteRecords() {
  const topic = await newTopic('delete-records')
  await fill(topic, 1, 100)
  const [deleted] = await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 60n }] }] })
  expect(60, Number(deleted.partitions[0].lowWatermark))
  expect('value60', (await read(topic, 40))[0])
}

async function logDirs() {
  const topic = await newTopic('log-dirs')
  await fill(topic, 1, 10)
  const [broker] = await admin.describeLogDirs({ topics: [{ name: topic, partitions: [0] }] })
  const partitions = broker.results.flatMap(dir => dir.topics).flatMap(found => found.partitions)
  expect(true, partitions.some(partition => partition.partitionSize > 0n))
}

async function cluster() {
  const metadata = await admin.metadata({ topics: [], forceUpdate: true })
  expect([1, true], [metadata.brokers.size, metadata.id !== '' && metadata.brokers.has(metadata.controllerId)])
}

async function offsets() {
  const topic = await newTopic('offsets')
  await producing({}, async producer => {
    for (const timestamp of [1000n, 5000n, 3000n]) {
      await producer.send({ messages: [{ topic, value: 'value', timestamp }] })
    }
  })
  const found = {}
  for (const timestamp of [ListOffsetTimestamps.EARLIEST, ListOffsetTimestamps.LATEST, 2000n]) {
    const listed = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }] })
    found[timestamp] = Number(listed[0].partitions[0].offset)
  }
  expect({ 2000: 1, '-2': 0, '-1': 3 }, found)
}

await main({
  topics,
  partitions,
  configs,
  produce,
  group,
  transactions,
  'transaction-offsets': transactionOffsets,
  'list-transactions': null,
  'delete-groups': deleteGroups,
  'delete-offsets': deleteOffsets,
  'delete-records': deleteRecords,
  'log-dirs': logDirs,
  cluster,
  offsets
})
