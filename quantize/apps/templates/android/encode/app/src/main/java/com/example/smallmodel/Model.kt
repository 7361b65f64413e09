package com.example.smallmodel

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import android.system.Os
import java.io.Closeable
import java.io.File
import java.nio.LongBuffer

/** The classifier or embedder of `folder`, run by onnxruntime; its tokenizer is C++. */
class Model(folder: File) : Closeable {
    private val started = System.nanoTime()
    private val file = folder.listFiles()!!.single { it.extension == "onnx" }
    private val environment: OrtEnvironment
    private val session: OrtSession
    private val loadMs: Double
    private var startMs = 0.0

    init {
        Os.setenv("ORT_DISABLE_TELEMETRY", "1", true) // onnxruntime reports its use unless this stands before it starts
        environment = OrtEnvironment.getEnvironment()
        val options = OrtSession.SessionOptions().apply { setIntraOpNumThreads(threads()) }
        session = environment.createSession(file.path, options)
        loadMs = since(started)
    }

    /** Read `text` `repeats` times, showing the first answer; returns the profile as JSON. */
    fun run(text: String, repeats: Int, show: (String) -> Unit): String {
        val times = DoubleArray(repeats)
        var count = 0
        for (index in 0 until repeats) {
            val before = System.nanoTime()
            val ids = tokens(text.toByteArray())
            count = ids.size
            val answer = answerOf(output(ids), count).decodeToString()
            times[index] = since(before)
            if (startMs == 0.0) startMs = loadMs + times[index]
            if (index == 0) show(answer)
        }
        return profile(file.path.toByteArray(), threads(), loadMs, startMs, times, count).decodeToString()
    }

    private fun output(ids: IntArray): FloatArray {
        val shape = longArrayOf(1, ids.size.toLong())
        val inputs = session.inputNames.associateWith { name ->
            val values = LongArray(ids.size) { place ->
                when (name) {
                    "input_ids" -> ids[place].toLong()
                    "attention_mask" -> 1L
                    else -> 0L
                }
            }
            OnnxTensor.createTensor(environment, LongBuffer.wrap(values), shape)
        }
        try {
            session.run(inputs, setOf(outputName())).use { result ->
                val buffer = (result[0] as OnnxTensor).floatBuffer
                return FloatArray(buffer.remaining()).also { buffer.get(it) }
            }
        } finally {
            inputs.values.forEach(OnnxTensor::close)
        }
    }

    private fun since(time: Long) = (System.nanoTime() - time) / 1e6

    override fun close() = session.close()

    private external fun tokens(text: ByteArray): IntArray
    private external fun outputName(): String
    private external fun threads(): Int
    private external fun answerOf(output: FloatArray, tokens: Int): ByteArray
    private external fun profile(
        path: ByteArray, threads: Int, loadMs: Double, startMs: Double, times: DoubleArray, tokens: Int
    ): ByteArray

    private companion object {
        init {
            System.loadLibrary("model")
        }
    }
}
